"""Work that needs the source before training: its held-out scores, its correction on the text, and its stored outputs if it cannot stay in
memory. Each is done once and stored in the run's folder."""

from engine.jobs import Job
from engine.models.loading import open_model
from engine.recover.distill.correction import corrected
from engine.recover.distill.distillation import LiveTeacher, terms_of
from engine.recover.distill.heldout import domain_costs, likelihoods, plainly
from engine.recover.distill.stored_teacher import Stored
from engine.recover.run.learning import looks
from engine.recover.run.training_context import TrainingContext, cast
from engine.recover.shear.domain_weighting import known_references
from engine.training.parallel import first
from engine.training.recipe import Recipe
from engine.types import Model


def prepared(school: TrainingContext, recipe: Recipe) -> Job[bool]:
    """Do the missing preparation, reopening the source if it is not in memory and freeing it afterwards. Return False if a pause was
    requested.

    Raises:
        TrainingError: the disk has no room for the source's outputs.
    """
    run, record, device = school.run, school.run.record, school.device
    if not school.present and terms_of(record.loss).teacher:
        vocabulary = school.model.config.vocab_size
        school.stored = Stored(run.said, school.rows, recipe, record.top, vocabulary)
    if not school.present and not first():  # only the first process opens it; the others wait
        return True
    corrects = bool(record.correct_teacher)
    if record.quick_scores is not None and (school.stored.whole if school.stored else not (corrects and school.present)):
        return True
    model: Model = school.model if school.present else (yield from open_model(school.model.source))
    within = school.within if school.present else plainly
    cast(model.network, recipe.autocast)
    if record.quick_scores is None:
        scores = {}
        for name, held in looks(school.held).items():
            scores[name] = yield from likelihoods(model.network, held, recipe.autocast, device, within)
        run.note(quick_scores=scores)
    if school.weighing and record.references is None:
        known = known_references(record.known_references, school.rows.domains)
        run.note(references=(yield from domain_costs(model.network, school.weighing.held, recipe.autocast, device, within)) | known)
    if corrects and not (yield from corrected(school, model, recipe)):
        return False
    if school.stored is not None:
        yield from school.stored.fill(LiveTeacher(model.network, recipe.autocast), device)
        run.note(missing=school.stored.missing())
    return True
