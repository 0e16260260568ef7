"""The page's theme."""

import gradio as gr


def theme() -> gr.themes.Base:
    """Return the theme: system fonts with Korean, neutral greys, one accent colour."""
    fonts = (
        "system-ui",
        "-apple-system",
        "Segoe UI",
        "Noto Sans KR",
        "Noto Sans CJK KR",
        "Apple SD Gothic Neo",
        "Malgun Gothic",
        "sans-serif",
    )
    base = gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=("ui-monospace", "monospace"), radius_size="sm")
    return base.set(  # contrast of at least 4.5 : 1 on every background
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_label_text_color="*neutral_700",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )
