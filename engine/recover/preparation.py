"""What only the source can tell, before the steps begin: how it scores on what is looked at on the way, what it gains by reading the text
first, and what it says of the text where it cannot stay beside the student. Each is done once, and kept in the run's folder."""

from engine.jobs import Job
from engine.models.loading import open_model
from engine.recover.correction import corrected
from engine.recover.distillation import Present, terms_of
from engine.recover.domain_weighting import known_references
from engine.recover.heldout import domain_costs, likelihoods, plainly
from engine.recover.learning import looks
from engine.recover.stored_teacher import Stored
from engine.recover.training_context import TrainingContext, cast
from engine.training.parallel import first
from engine.training.recipe import Recipe
from engine.types import Model


def prepared(school: TrainingContext, recipe: Recipe) -> Job[bool]:
    """Do what is not done of it; the source is opened again for that where it is gone, and is gone again afterwards. Return False where
    somebody asked for a pause on the way.

    Raises:
        TrainingError: the disk has no room for what the source says.
    """
    run, record, device = school.run, school.run.record, school.device
    if not school.present and terms_of(record["loss"]).teacher:
        vocabulary = school.model.config.vocab_size
        school.stored = Stored(run.said, school.rows, recipe, record["top"], vocabulary)
    if not school.present and not first():  # which opens it alone, while the others wait
        return True
    corrects = bool(record["correct_teacher"])
    if "look_scores" in record and (school.stored.whole if school.stored else not (corrects and school.present)):
        return True
    model: Model = school.model if school.present else (yield from open_model(school.model.source))
    within = school.within if school.present else plainly
    cast(model.network, recipe.autocast)
    if "look_scores" not in record:
        scores = {}
        for name, held in looks(school.held).items():
            scores[name] = yield from likelihoods(model.network, held, recipe.autocast, device, within)
        run.note(look_scores=scores)
    if school.weighing and "references" not in record:
        known = known_references(record["known_references"], school.rows.domains)
        run.note(references=(yield from domain_costs(model.network, school.weighing.held, recipe.autocast, device, within)) | known)
    if corrects and not (yield from corrected(school, model, recipe)):
        return False
    if school.stored is not None:
        yield from school.stored.fill(Present(model.network, recipe.autocast), device)
        run.note(missing=school.stored.missing())
    return True
