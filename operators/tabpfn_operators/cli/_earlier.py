"""What a destination holds already: told to people, and refused where money or predictions would be lost."""

from tabpfn_assets import ScoringManifest, ScoringPlan
from tabpfn_operators.errors import DestinationError
from tabpfn_operators.predict import PREDICTIONS_FILE
from tabpfn_operators.scoring import Earlier

_NAMED = 3
_SOURCE = "source (a file that was written again is another)"


def admit(earlier: Earlier, plan: ScoringPlan, url: str, *, resume: bool, replace: bool) -> None:
    """Let a scoring begin or go on in a destination, or refuse.

    Args:
        earlier: What the destination holds.
        plan: The scoring.
        url: The destination, without secrets.
        resume: Whether it may go on with what is there of it.
        replace: Whether what other scorings have left may go.

    Raises:
        DestinationError: It is refused; the message says what is there, and what to do.
    """
    if earlier.predictions or replace or (resume and earlier.holds(plan.plan_id)):
        return  # predictions of a single call are refused by whoever scores beside them
    if earlier.holds(plan.plan_id):
        raise DestinationError(
            f"{url} holds {destination_fact(earlier, plan)}, and --no-resume begins in an empty folder only. Leave it "
            "out to go on, or choose another folder. Nothing was sent."
        )
    if not earlier.empty:
        raise DestinationError(
            f"{url} holds {_others(earlier, plan)}. {_difference(earlier, plan)} To go on with what is there, correct "
            "what is another by mistake. Otherwise choose another folder for this one, or pass --replace: what is "
            "there goes when this one is complete. Nothing was sent."
        )


def destination_fact(earlier: Earlier, plan: ScoringPlan) -> str:
    """Say in a line what a destination holds."""
    if earlier.predictions:
        return f"the predictions of a single call ({PREDICTIONS_FILE}), which are in the way"
    if earlier.complete(plan.plan_id):
        return "this scoring, complete"
    own = earlier.begun.get(plan.plan_id)
    others = _others(earlier, plan)
    told = [*([f"this scoring, {own:,} of {plan.shards:,} shards begun"] if own else []), *([others] if others else [])]
    return ", and ".join(told) or "nothing yet"


def _others(earlier: Earlier, plan: ScoringPlan) -> str:
    told = [_complete(earlier.manifest)] if earlier.manifest and not earlier.complete(plan.plan_id) else []
    told += ["a scoring whose manifest is damaged"] if earlier.damaged else []
    unfinished = [(plan_id, begun) for plan_id, begun in earlier.unfinished.items() if plan_id != plan.plan_id]
    told += [
        f"unfinished work of the scoring {plan_id} ({begun:,} shards begun, which are possibly paid for)"
        for plan_id, begun in unfinished[:_NAMED]
    ]
    more = len(unfinished) - _NAMED
    return " and ".join([*told, *([f"{more:,} more"] if more > 0 else [])])


def _complete(manifest: ScoringManifest) -> str:
    finished = f"{manifest.finished_at:%Y-%m-%d %H:%M} UTC"
    return f"the complete scoring {manifest.plan.plan_id} ({manifest.rows:,} rows, {finished})"


def _difference(earlier: Earlier, plan: ScoringPlan) -> str:
    """Say what makes it another scoring; of one that is not complete only its id is known."""
    here = f"This is the scoring {plan.plan_id}"
    if earlier.manifest is None or earlier.unfinished:
        return f"{here}, of another model, {_SOURCE} or other options."
    theirs = earlier.manifest.plan
    # The names of kept columns may be hashed there.
    source = _SOURCE if plan.keep == theirs.keep else f"{_SOURCE} or choice of kept columns"
    differing = [
        name
        for name, mine, other in (
            ("model", plan.fitted_train_set_id, theirs.fitted_train_set_id),
            (source, plan.source.fingerprint, theirs.source.fingerprint),
            ("output type", plan.output_type, theirs.output_type),
            ("choice of quantiles", plan.quantiles, theirs.quantiles),
            ("form (--wide)", plan.wide, theirs.wide),
            ("choice of folders", len(plan.partition_by), len(theirs.partition_by)),
            ("number of rows per shard", plan.rows_per_shard, theirs.rows_per_shard),
        )
        if mine != other
    ]
    return f"{here}, with another {', another '.join(differing or ['choice of kept columns, folders or shards'])}."
