import gradio as gr
import pytest

from ui.page.components.slider import Slider


@pytest.mark.parametrize(("sent", "taken"), [(30, 6), (0, 1), (4, 4), (None, 1)])
def test_a_value_outside_the_range_is_cut_to_it(sent: float | None, taken: int) -> None:
    with gr.Blocks():
        slider = Slider(1, 6, 6, step=1, precision=0)
    assert slider.preprocess(sent) == taken
    assert slider.get_block_name() == "slider"
