"""Texts around the tabs, and of Explore."""

TEXT: dict[str, str] = {
    # the page
    "title": "Layerscope",
    "subtitle": "Find the layers of a language model that repeat each other, fold them, and export a smaller "
                "checkpoint.",
    "other_language": "한국어",
    "cancel": "Cancel",
    "explore": "Explore",
    "fold": "Fold",
    "export": "Export",
    # side bar
    "model": "Model",
    "model_info": "demo, a folder with safetensors, a .gguf file, hub:org/name, or merged: followed by an adapter's "
                  "folder. Only hub: downloads anything.",
    "dtype": "Number format",
    "dtype_info": "auto keeps the format of the files. bfloat16 needs half the memory of float32.",
    "texts": "Calibration texts",
    "texts_info": "Similarity is measured on these. Five to ten sentences are enough.",
    "texts_english": "English, 10 sentences",
    "texts_korean": "Korean, 10 sentences",
    "texts_own": "My own",
    "own_texts": "My texts, one per line",
    "open": "Open",
    "models_show": "Models on this machine",
    "models_none": "No model here has that name; press Enter to open what you typed.",
    "models_demo": "Demo",
    "models_recent": "Recently opened",
    "models_export": "Exported here",
    "models_hub": "In the Hugging Face cache",
    "models_not": "cannot be opened",
    "device": "Device",
    "device_free": "{name}: {free} of {total} GB free",
    # explore
    "similarity_title": "### Which layers repeat each other",
    "similarity_read": "Each square compares the hidden states at two depths: **bright means similar**. A bright block "
                       "along the diagonal is a run of layers that barely changes the hidden state. Click a square, or "
                       "use the arrow keys.",
    "measure": "Compare by",
    "measure_cosine": "cosine of every token",
    "measure_angular": "angle of the last token",
    "tokens": "First token",
    "tokens_all": "with",
    "tokens_rest": "without",
    "tokens_info": "The first token is an attention sink with a huge norm; see the norms below.",
    "removal_button": "Measure perplexity without each layer",
    "landscape_title": "### Where folding is safe",
    "landscape_read": "Each square is one fold: its base layer (across) and its number of layers (up). **Bright means "
                      "that the model's final state is preserved.** Click a square, or use the arrow keys and Enter, "
                      "to add the fold to your hand-made plan; repeat to remove it.",
    "weights_title": "### How far apart the weights are",
    "weights_read": "Each row is a projection, each column a pair of neighbouring layers. **Bright means that the "
                    "weights are close.** Hidden states may be similar even where weights differ.",
    "weights_measure": "Weights by",
    "weights_l2": "Relative distance",
    "weights_cosine": "Cosine",
    "norms_title": "### How large the states are",
    "norms_read": "The norm of the residual stream at each depth, on a log scale. Where the first token's norm far "
                  "exceeds the others, a mean over all tokens mixes two different quantities.",
    "stopping": "Stopping …",
    "behind": "Waiting for another tab that uses the same model: {job}",
    "another_job": "another job",
    "time_left": "about {time} left",
    "seconds": "{count} s",
    "minutes": "{count} min",
    "hours": "{count} h",
    "away": "The server does not respond. The page continues automatically when it is back.",
}  # fmt: skip
