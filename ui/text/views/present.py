"""Texts of the guided view for guests: six steps on the open model and the plan shown."""

TEXT: dict[str, str] = {
    "present": "Present",
    "present_label": "Guided view for presentations. Arrow keys move between steps, Escape leaves.",
    "present_next": "Next",
    "present_back": "Back",
    "present_leave": "Leave",
    "present_plan": "{left} of {source} layers",
    "present_working": "Still being computed; it appears here automatically.",
    "present_stopped": "Not computed yet. Leave this view, open a model and choose a T.",
    # missing measurements
    "present_missing": "Not measured for this plan yet: {what}. Measure it before your presentation.",
    "present_measure": "Measure it now",
    "present_asked": "Requested; it appears here automatically.",
    # 1
    "present_repeat": "Where layers repeat each other",
    "present_repeat_read": "Each square compares the hidden states at two depths. Bright means similar: the layers "
                           "between them changed almost nothing.",
    "present_least": "Layer {layer} changes least: its output has a cosine of {cosine} with its input.",
    "present_framed": "Framed: the layers that the plan shown folds or drops: {layers}.",
    # 2
    "present_fold": "One fold, explained",
    "present_no_fold": "The plan shown changes no layer, so there is no fold to explain. The next step shows plans "
                       "with folds.",
    "present_one": "Layers {layers} become one: layer {kept} is kept unchanged, and {lost} is dropped.",
    "present_donor": "Layers {layers} become one: layer {home} provides its position and its norms, layer {donor} "
                     "provides its projections.",
    "present_mean": "Layers {layers} become one: the mean of their projections, with the norms of layer {home}.",
    "present_mix": "Layers {layers} become one: a sum of their projections with the factors shown, with the norms of "
                   "layer {home}.",
    "present_lost": "{lost} is dropped.",
    "present_dropped": "Dropped: {layers}. The hidden state passes directly to the next layer.",
    "present_parts": "Nothing is trained. A layer's projections contain nearly all of its weights; its norms set the "
                     "scale of its input.",
    "present_folds": "The whole plan: {source} layers become {left}. It removes layers at {count} places; this is the "
                     "largest.",
    "present_repaired": "Seams repaired: {count}. A map fitted on practice texts is folded into the weights there.",
    "present_norms": "norms",
    "present_projections": "projections",
    "present_whole": "the whole layer",
    # 3
    "present_slider": "From gentle to too far",
    "present_slider_read": "One threshold decides: a fold is accepted while the similarity stays above T. A lower T "
                           "removes more layers. The cost shows the effect on the model.",
    "present_gentle": "gentle",
    "present_too_far": "too far",
    "present_play": "▶ Play",
    "present_pause": "❚❚ Pause",
    "present_take": "Show this plan",
    "present_is_shown": "This is the plan shown.",
    "present_other": "The plan shown was not made with this slider. It has {left} layers and a cost of {cost}.",
    "present_filling": "The rest of the T map is still being computed.",
    # 4
    "present_write": "The same prompt, before and after",
    "present_another": "Another prompt",
    # 5
    "present_gain": "Gains",
    "present_peak": "peak memory (weights and computation)",
    "present_weights": "weights in memory",
    "present_cache": "KV cache, {context} tokens × {batch}",
    "present_decode": "tokens written per second",
    "present_prefill": "tokens read per second",
    "present_rounds": "{low}–{high} over {rounds} rounds",
    "present_even": "{low}–{high} over {rounds} rounds: no clear difference",
    "present_memory": "Memory",
    "present_speed": "Speed",
    "present_machine": "Speed and memory were measured on this machine: {device}, {dtype}, threads {threads}; {read} "
                       "tokens read, {written} written. KV cache and weights are computed.",
    "present_price": "The cost: perplexity {ratio} of the source's, on {tokens} tokens of {texts}.",
    "present_price_broken": "The cost: the plan's perplexity is not a number. The plan is broken.",
    # 6
    "present_then": "Next steps",
    "present_then_none": "No layer is folded yet. Choose a plan that costs little, then come back.",
    "present_then_good": "The cost is small. Export the plan and try it on your own tasks.",
    "present_then_fair": "The cost is clear. Repair the seams, or search for a better plan of the same size, before you export.",
    "present_then_poor": "This plan costs too much. Search for a better plan of the same size, or raise T to keep more "
                         "layers.",
    "present_then_unknown": "The cost of this plan is unknown. Measure it before you decide.",
    "present_to_export": "Export a checkpoint",
    "present_to_export_read": "An ordinary folder that plain transformers loads, checked in a fresh process.",
    "present_to_report": "Create a report",
    "present_to_report_read": "All of this in one file to send or print; it opens offline.",
    "present_to_better": "Search for a better plan",
    "present_to_better_read": "Search tries other plans of the same size.",
    "present_to_fold": "Move T, repair seams",
    "present_to_fold_read": "Fold has the slider and the repairs; neither trains.",
}  # fmt: skip
