"""What may be asked of us, who may be shown, and what may leave.

Prompts and finished pictures are judged through the names below. `enrolment` says who may become
an identity, `do_not_generate` who never may, `policy_set` proves that none of it was changed.
"""

from imagine.safety.output_checks import (
    CheckReport,
    CheckSettings,
    Outcome,
    OutputChecks,
    OutputTools,
    SeenFace,
    Thresholds,
    Verdict,
    usual_checks,
)
from imagine.safety.prompt_policy import (
    TEXT_JUDGES,
    PromptPolicy,
    PromptVerdict,
    TextJudge,
    allow_prompt,
    judge_text,
)

__all__ = [
    "TEXT_JUDGES",
    "CheckReport",
    "CheckSettings",
    "Outcome",
    "OutputChecks",
    "OutputTools",
    "PromptPolicy",
    "PromptVerdict",
    "SeenFace",
    "TextJudge",
    "Thresholds",
    "Verdict",
    "allow_prompt",
    "judge_text",
    "usual_checks",
]
