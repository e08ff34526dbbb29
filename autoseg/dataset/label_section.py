"""The keys ``labels``, ``unlabelled`` and ``regions_class_order`` of a dataset.json, and the rules between them.

Source: nnU-Net v2 ``utilities/label_handling/label_handling.py``. Differs in that the ignore label may be any integer
above the other labels, in that background may have any value if ``unlabelled`` declares the value of unannotated
voxels, and in that every mistake is reported, also those that nnU-Net accepts (equal values, gaps, negative values,
text for numbers, ``Ignore`` for ``ignore``).
"""

from __future__ import annotations

from collections.abc import Mapping

from autoseg.core.findings import Findings, did_you_mean, listed, shown
from autoseg.dataset.file_values import LEAST_VALUE, MAX_VALUE, parse_value, value_name
from autoseg.dataset.json_advice import as_written, declare_unknown, move_to_unlabelled, paint_advice
from autoseg.dataset.labels import Head, Labels
from autoseg.dataset.schema import BACKGROUND, IGNORE, ORDER, UNLABELLED, DatasetFile, DatasetSchema, has_regions

Values = Mapping[str, tuple[int, ...]]
"""Name of a class or region -> its file values, ascending; more than one for a region."""

_BACKGROUND_NAMES = frozenset(
    {"bg", "back", "outside", "other", "negative", "nothing", "empty", "annotated background", "drawn background"}
)
"""Names, in lower case, that may be annotated background in data where 0 means unannotated."""
_UNLABELLED_NAMES = frozenset(
    {"unlabelled", "unlabeled", "not labelled", "not labeled", "unannotated", "not annotated", "not_annotated"}
)
"""Names, in lower case, that are probably not those of a class."""
_ONE_MEANING = {
    BACKGROUND: "If one value is both background and what nobody looked at, only a mask per case can tell: see "
    "valid_mask_folder. If background is drawn with a value of its own, write that value as labels.background.",
    IGNORE: 'Remove "ignore" from labels: both say the same.',
}

_NOT_OF_CLASSES = {
    BACKGROUND: "Give it a value of its own; regions too are without that of the background.",
    IGNORE: "Remove it there: un-annotated voxels belong to no class and no region.",
}


def read_labels(file: DatasetFile, findings: Findings) -> Labels | None:
    """Return the classes that a dataset.json declares, without ``label_sets`` and ``cases``.

    None after a fault in these keys, those against the schema included.
    """
    if "labels" in file.faulty or "labels" not in file.content:
        return None
    n_faults = len(findings.faults)
    section = file.content["labels"]
    _check_background(file, findings)
    misnamed = {name for name in section if _is_misnamed(file, name, findings)}
    names = [name for name in section if name not in {BACKGROUND, IGNORE, *misnamed}]
    foreground = {name: values for name, values in file.schema.labels.foreground.items() if name in names}
    if not names:
        findings.fault(
            "labels", found="no foreground class", expected="at least one beside background",
            fix='Write the classes with their values: {"background": 0, "liver": 1}.',
        )  # fmt: skip
    _check_values(file, foreground, findings)
    _check_ignore(file, foreground, findings)
    if has_regions(section):
        _check_order(file, foreground, len(names), findings)
    elif len(foreground) == len(names):
        _check_gaps(file, foreground, findings)
    faulty = {key.split(".")[0] for key in file.faulty}
    if len(findings.faults) > n_faults or faulty & {"labels", UNLABELLED, ORDER}:
        return None
    return _labels(file.schema, foreground)


def classes_by_name(labels: Labels) -> dict[str, frozenset[int]]:
    """Return the class indices that each name of a class or region stands for, background included."""
    by_class = {name: frozenset({index}) for index, name in enumerate(labels.class_names)}
    return by_class | {head.name: frozenset(head.classes) for head in labels.heads}


def _folded(name: str) -> str:
    return name.strip().casefold()


def _check_background(file: DatasetFile, findings: Findings) -> None:
    """Add a fault if background is missing, or if it is not 0 and the meaning of 0 is not declared."""
    content, section, background = file.content, file.content["labels"], file.schema.labels.background
    if BACKGROUND not in section:
        if BACKGROUND not in map(_folded, section):
            findings.fault(
                "labels", found=f"no 'background' among {listed(section, 20)}",
                expected="a label 'background' with value 0",
                fix='Add "background": 0. If 0 marks voxels that nobody looked at, add background with the value with '
                f"which it is drawn instead, and write {as_written(declare_unknown(content, 0))} beside labels.",
            )  # fmt: skip
        return
    if background == 0 or UNLABELLED in content or _names_unlabelled(file):
        return
    fix = f'If every voxel is labelled, write "{UNLABELLED}": null beside labels, and background may stay.'
    if not any(0 in (value if isinstance(value, (list, tuple)) else [value]) for value in section.values()):
        fix = (
            f'If 0 marks voxels that nobody looked at, write "{UNLABELLED}": 0 beside labels, and "background": '
            f'{background} may stay; if no label file holds a 0, write "{UNLABELLED}": null. If 0 is background, write '
            '"background": 0.'
        )
    findings.fault("labels.background", found=shown(background), expected="the integer 0", fix=fix)


def _names_unlabelled(file: DatasetFile) -> bool:
    """Whether a label is the value of unannotated voxels; another fault says how to declare it."""
    section, labels = file.content["labels"], file.schema.labels
    highest = max([labels.background, *(max(values) for values in labels.foreground.values())])
    is_low = labels.ignore is not None and LEAST_VALUE <= labels.ignore < highest
    return is_low or any(
        _folded(name) in _UNLABELLED_NAMES and parse_value(section[name]) is not None for name in section
    )


def _is_misnamed(file: DatasetFile, name: str, findings: Findings) -> bool:
    """Whether a label is not a class, by its name; adds a fault then, and a warning for a name that is doubtful."""
    content, section, key = file.content, file.content["labels"], f"labels.{name}"
    value, background = parse_value(section[name]), file.schema.labels.background
    if name in (BACKGROUND, IGNORE):
        return False
    if _folded(name) in (BACKGROUND, IGNORE):
        exact = _folded(name)
        fix = f"Write {as_written({exact: section[name]})}; as {name!r} it would be trained as a class."
        if exact == IGNORE and IGNORE in section and value is not None:
            fix = f"A second such value stands beside labels: write {move_to_unlabelled(content, name, value)}."
        findings.fault(key, found=f"the name {name!r}", expected=f"exactly {exact!r}", fix=fix)
        return True
    if _folded(name) in _UNLABELLED_NAMES and value is not None:
        written = move_to_unlabelled(content, name, value)
        if value > 0 and (background == 0 or UNLABELLED in content):
            findings.warn(key, f"is trained as a class of its own. If nobody looked at these voxels, write {written}")
            return False
        if value == section[name] and value >= 0:  # others are faults against the schema
            findings.fault(
                key, found=f"{value}, a label named {name!r}", expected="only names of classes",
                fix=f"If nobody looked at these voxels, write {written}.",
            )  # fmt: skip
        return True
    for exact in (BACKGROUND, IGNORE):
        if did_you_mean(name, [exact], cutoff=0.85):
            findings.warn(key, f"is trained as a class of its own. Did you mean {exact!r}?")
    if _folded(name) in _BACKGROUND_NAMES and background == 0 and BACKGROUND in section:
        others = {other: item for other, item in section.items() if other not in {BACKGROUND, name}}
        written = as_written({"labels": {BACKGROUND: section[name], **others}, **declare_unknown(content, 0)})
        findings.warn(
            key, "is trained as a class beside background. If it is annotated background, and 0 marks voxels that "
            f"nobody looked at, write {written}",
        )  # fmt: skip
    return False


def _check_values(file: DatasetFile, foreground: Values, findings: Findings) -> None:
    """Add faults for values with two meanings."""
    ignore = () if file.schema.labels.ignore is None else (file.schema.labels.ignore,)
    special: Values = {BACKGROUND: (file.schema.labels.background,), IGNORE: ignore}
    first_with: dict[tuple[int, ...], str] = {}
    for name, values in foreground.items():
        written = file.content["labels"][name]
        if isinstance(written, (list, tuple)) and len(written) > len(values):
            findings.warn(f"labels.{name}", f"the region {shown(written)} lists a value twice")
        for other, fix in _NOT_OF_CLASSES.items():
            for shared in set(values).intersection(special[other]):
                _add_shared(f"labels.{name}", shared, other, fix, findings)
        if values in first_with:
            value = values[0] if len(values) == 1 else list(values)
            fix = "Give one of the two another value, or remove it."
            _add_shared(f"labels.{name}", value, first_with[values], fix, findings)
        first_with.setdefault(values, name)
    unlabelled = file.schema.unlabelled
    for name, values in {**foreground, **special}.items():
        if unlabelled is not None and unlabelled in values:
            fix = _ONE_MEANING.get(name, "Remove the key, or the label.")
            _add_shared(UNLABELLED, value_name(unlabelled), name, fix, findings)


def _add_shared(key: str, value: object, other: str, fix: str, findings: Findings) -> None:
    findings.fault(key, found=f"{value}, also that of {other!r}", expected="a value with one meaning", fix=fix)


def _check_ignore(file: DatasetFile, foreground: Values, findings: Findings) -> None:
    """Add a fault if the ignore label is not the highest."""
    ignore, background = file.schema.labels.ignore, file.schema.labels.background
    classes = {item for values in foreground.values() for item in values}
    highest = max({background, *classes} - {ignore}, default=0)
    if ignore is None or max(highest, background) < ignore <= MAX_VALUE:
        return
    fix = f'Write "{IGNORE}": {min(highest + 1, MAX_VALUE)} and re-map the label files.'
    if ignore == background:
        fix = f'{_ONE_MEANING[BACKGROUND]} Write "{UNLABELLED}": {ignore} beside labels then, without ignore in them.'
    elif parse_value(ignore) is not None and ignore not in classes:
        fix = f"Such a value is declared beside labels: write {move_to_unlabelled(file.content, IGNORE, ignore)}."
    expected = f"one integer greater than every other label, {highest + 1} or more, at most {MAX_VALUE}"
    findings.fault("labels.ignore", found=str(ignore), expected=expected, fix=fix)


def _check_order(file: DatasetFile, foreground: Values, n_regions: int, findings: Findings) -> None:
    """Add faults if the order of regions is missing, has another length, or has values of no class."""
    order = file.schema.regions_class_order
    if order is None and file.content.get(ORDER) is not None:
        return  # a fault against the schema
    declared = {item for values in foreground.values() for item in values} - {file.schema.labels.ignore}
    unknown = [item for item in order or () if item not in declared]
    is_whole = len(foreground) == n_regions
    for is_wrong, found in (
        (order is None, "no such key"),
        (order is not None and len(order) != n_regions, f"{len(order or ())} values {order}"),
        (unknown and (is_whole or file.schema.labels.ignore in unknown), f"{listed(unknown)}, no value of a class"),
    ):
        if is_wrong:
            expected = f"one value of each region, in the order {listed(foreground, 20)}"
            findings.fault(ORDER, found=found, expected=expected, fix=paint_advice(file.content["labels"]))
    for value, (name, values) in zip(order or (), foreground.items(), strict=False):
        if value not in values:
            findings.warn(ORDER, f"{value}, painted for {name!r}, is not in that region {list(values)}")
    if order is not None and len(set(order)) < len(order):
        findings.warn(ORDER, f"{order} paints several regions with one value")


def _check_gaps(file: DatasetFile, foreground: Values, findings: Findings) -> None:
    """Add a fault for undeclared values between the lowest and the highest value of a class."""
    classes = {file.schema.labels.background, *(item for values in foreground.values() for item in values)}
    sections = [file.content.get(key) for key in ("label_sets", "label_weights")]
    values = [value for section in sections if isinstance(section, Mapping) for value in section]
    others = [file.schema.unlabelled, file.schema.labels.ignore, *values]
    declared = classes | {value for item in others if (value := parse_value(item)) is not None and value >= 0}
    highest = max((item for values in foreground.values() for item in values), default=0)
    missing = sorted(set(range(min(classes), highest)) - declared)
    if missing:
        findings.fault(
            "labels", found=f"the values {listed(sorted(declared), 20)} with a gap (no {listed(missing)})",
            expected="consecutive values 0, 1, 2, ... (only ignore may be higher)",
            fix="Number the classes without gaps and re-map the label files.",
        )  # fmt: skip


def _labels(schema: DatasetSchema, foreground: Values) -> Labels:
    background = schema.labels.background
    values = [background, *sorted({item for members in foreground.values() for item in members})]
    index = {value: position for position, value in enumerate(values)}
    names = {members[0]: name for name, members in foreground.items() if len(members) == 1} | {background: BACKGROUND}
    order = schema.regions_class_order
    if order is None:
        foreground = dict(sorted(foreground.items(), key=lambda item: item[1]))
    heads = [Head(name, tuple(index[value] for value in members), members) for name, members in foreground.items()]
    return Labels(
        class_values=tuple(values),
        class_names=tuple(names.get(value, f"value {value}") for value in values),
        heads=tuple(heads if order else [Head(BACKGROUND, (0,), (background,), is_background=True), *heads]),
        paint_values=None if order is None else tuple(order),
        ignore=schema.labels.ignore,
        unlabelled=schema.unlabelled,
    )
