"""Settings of evidence for voxels that nobody annotated."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class EvidenceConfig(BaseModel):
    """Settings of what is learnt of unannotated voxels, and of its check."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    background_prior: float = Field(default=0.0, ge=0)
    """Strength of the prior that an unannotated voxel is rather background than not: how much the unannotated voxels of
    a class may weigh as background, relative to its annotated ones. 0 is none. Scribbled data: 0.5."""
    promise_weight: float = Field(default=25.0, ge=0)
    """Weight of what annotation_protocol settles, all voxels together, relative to all that was annotated."""
    held_out_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of the annotation that training does not see, to check what is inferred; 0 where nothing needs it."""
    teacher_weight: float = Field(default=0.0, ge=0)
    """Weight of the mean-teacher loss on voxels without a certain class; 0 is none."""
    teacher_confidence: float = Field(default=0.9, gt=0.5, lt=1)
    """Probability above which a prediction of the teacher is taken."""
    teacher_precision: float = Field(default=0.9, ge=0, le=1)
    """Share of confident predictions that must be right on held-out annotation for a class to be taught."""
    teacher_start: float = Field(default=0.3, ge=0, le=1)
    """Share of the run after which the teacher begins."""
    teacher_decay: float = Field(default=0.98, ge=0, lt=1)
    """Weight of the past in the teacher's weights, per step."""
