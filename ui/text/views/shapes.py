"""Texts of Search for shapes within a budget."""

TEXT: dict[str, str] = {
    "shapes_title": "### Shapes for a budget",
    "shapes_read": "Fewer layers, fewer heads, fewer neurons or a narrower stream? All shapes that a stock class loads "
                   "and that lie at most 5 % below the budget are ranked by an estimate from one pass over practice "
                   "text. The most promising shapes and the largest one are built, evaluated and timed. Choose a row "
                   "or a point to show its plan.",
    "shapes_budget": "Maximum million parameters",
    "shapes_budget_info": "The target size of the model",
    "shapes_measured": "Shapes to measure",
    "shapes_measured_info": "More shapes take longer; a cancel keeps the results so far",
    "shapes_refit": "Refit the projections that read pruned parts",
    "shapes_speed": "Measure speed too",
    "shapes_button": "Search shapes",
    "waiting_shapes": "No shape is measured yet.",
    "shapes_count": "{legal} shapes fit the budget; {count} of them are measured, the cheapest first:",
    "shape_says": "{layers} layers, {heads} heads, {neurons} neurons, {channels} channels",
    "shapes_rankings": "Rank correlation with the measured cost (Spearman, {count} shapes): estimate {estimate}, size "
                       "{size}. Best by estimate: {best}. Largest: {largest}.",
    "shapes_unmeasured": "not measured",
    "shapes_by_size": "versus parameters",
    "shapes_by_speed": "versus decode speed",
    "shapes_speed_axis": "decode speed relative to the source, ×",
    "shapes_size_axis": "million parameters",
    "shapes_front": "Pareto-optimal",
    "shapes_beaten": "dominated",
    "shapes_first": "best by estimate",
    "shapes_largest": "largest",
    "col_shape": "shape",
    "col_by_estimate": "rank by estimate",
    "col_by_size": "rank by size",
    "job_shape": "Rebuilding the shape",
    "job_shapes": "Searching shapes",
    "search_depth_only": "A search removes layers from the whole model and ignores the width and the masks of the plan "
                         "shown. Trim and prune the plan it finds afterwards, or search shapes below, which reduce "
                         "depth and width together.",
}  # fmt: skip
