"""The documents agree with the code: layers, links, commands."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from test_architecture import LAYERS, TORCH_FREE

from autoseg.core.config_levels import Resolved, leaf_keys, value_text
from autoseg.interop.run_data import DataTable
from autoseg.planning.network_options import NetworkOptions
from autoseg.training.config import ELEKTRONN_WORDS, TrainingConfig

REPOSITORY = Path(__file__).parent.parent
OPTIONS_OF_ELEKTRONN = """
save_path plot_on print_status device param_save_h initial_prev_h prev_save_h save_name overwrite param_file
activation_func batch_size dropout_rates n_dim desired_input filters pool nof_filters pooling_mode MFP rnn_layer_kwargs
MLP_layers target mode background_processes n_lab data_path label_path d_files l_files cube_prios valid_cubes
example_ignore_threshold grey_augment_channels use_example_weights flip_data anisotropic_data lazy_labels warp_on
pre_process zchxy_order border_mode upright_x downsample_xy preview_data_path preview_kwargs data_class_name
data_load_kwargs data_batch_kwargs n_steps max_runtime history_freq monitor_batch_size weight_decay class_weights
label_prop_thresh optimizer LR_decay LR_schedule SGD_params RPROP_params CG_params LBFGS_params
q abort kill save load sf smooth sethist setlr setmom params SGD CG RPROP LBFGS debugGetCNNBatch
"""
"""Of its configuration, and words of its console. Source: ELEKTRONN's documentation of the training pipeline."""
PAGES = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]


def test_the_table_of_layers_is_that_of_the_test():
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)`( \*)? \|", text, re.M)
    assert {name: int(layer) for layer, name, _ in rows} == LAYERS
    assert {name for _, name, star in rows if star} == set(TORCH_FREE)


def test_files_that_the_architecture_names_exist():
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"^\S.*?\s{2,}((?:[a-z]+/)+[a-z_]*(?:\.py)?)\s", text, re.M)
    assert len(named) > 15
    assert [name for name in named if not (REPOSITORY / "autoseg" / name).exists()] == []


def test_the_glossary_is_sorted_and_names_nothing_twice():
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8").partition("\n## Words")[2]
    words = re.findall(r"^\| ([^|]+?) \| ", text, re.M)[1:]
    assert words == sorted(set(words), key=str.casefold)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path):
    text = page.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


def test_every_command_is_named_in_the_readme():
    scripts = re.findall(r"^(autoseg_\w+) = ", (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert scripts
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert [name for name in scripts if name not in text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_row_of_a_table_has_the_cells_of_its_head(page: Path):
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if re.fullmatch(r"\|(\s*:?-+:?\s*\|)+", line):
            rows = [lines[number - 1], *itertools.takewhile(lambda row: row.startswith("|"), lines[number + 1 :])]
            assert {cells_of(row) for row in rows} == {cells_of(line)}, f"{page.name}:{number + 1}"


def test_the_table_of_settings_is_that_of_the_schema():
    text = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8").partition("\n## Every setting")[2]
    table = text.partition("\n| setting | default |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \| ", table, re.M)
    schema = Resolved(TrainingConfig(), {}).rows()
    assert rows == [(key, value_text(value)) for key, value, _ in schema]


def test_every_option_of_the_network_is_in_its_table():
    text = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8").partition("\n## The network")[2]
    rows = re.findall(r"^\| `network\.([^`]+)` \| ", text, re.M)
    assert sorted(rows) == sorted(leaf_keys(NetworkOptions))


def test_settings_that_the_table_of_options_names_exist():
    text = (REPOSITORY / "docs" / "elektronn.md").read_text(encoding="utf-8").partition("\n## Every option")[2]
    groups = "sampling|optimizer|augmentation|evidence|monitoring|network|data"
    named = set(re.findall(rf"`((?:{groups})\.[a-z]\w*)", text))
    known = {*leaf_keys(TrainingConfig), *(f"network.{key}" for key in leaf_keys(NetworkOptions))}
    known |= {f"data.{key}" for key in DataTable.model_fields}
    assert len(named) > 30
    assert sorted(named - known) == []
    settings = {word for word in ELEKTRONN_WORDS.values() if " " not in word}
    assert sorted(settings - known) == []


def test_the_table_has_every_option_of_elektronn():
    text = (REPOSITORY / "docs" / "elektronn.md").read_text(encoding="utf-8").partition("\n## Every option")[2]
    first_cells = " ".join(re.findall(r"^\| ([^|]+) \|", text, re.M))
    named = set(re.findall(r"\w+", first_cells))
    assert [name for name in OPTIONS_OF_ELEKTRONN.split() if name not in named] == []


def cells_of(row: str) -> int:
    """Return the number of cells of a row; a bar in code is text."""
    return re.sub(r"`[^`]*`", "", row).count("|") - 1
