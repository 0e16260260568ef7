"""Keep typed and chosen inputs that no link holds in the browser tab's storage, so that a reload restores them."""

import json
from types import SimpleNamespace
from typing import Any

import gradio as gr

from ui.text.commands import SHEARED_TO

# The scripts load with the first view, possibly after the page's load event.
SCRIPTS_ARE_HERE = "while (!window.layerscope?.session) await new Promise((go) => setTimeout(go, 20));"


def keep_what_is_typed(page: SimpleNamespace, demo: gr.Blocks, quiet: dict[str, Any]) -> None:
    """Wire the fields of the side bar, Search, Compare, Recover and Export to the tab's own storage."""
    search, compare, recover, export = page.search, page.compare, page.recover, page.export
    typed: dict[str, gr.components.Component] = {"own": page.side.own}
    typed |= {name: getattr(search, name) for name in ("kind", "amount", "context", "budget")}
    typed |= {f"judge-{name}": getattr(compare, name) for name in ("texts", "own", "tokens", "also")}
    typed |= {f"learn-{name}": getattr(recover, name) for name in ("texts", "files", "budget", "amount", "name")}
    typed |= {f"shear-{name}": control for name, control in zip(SHEARED_TO, recover.shear_target, strict=True)}
    forms = {"search": search.asked, "shapes": search.shapes_asked, "sweep": search.sweep_asked, "judge": compare.asked}
    forms |= {"learn": recover.asked, "shear": recover.shear_asked, "export": {"name": export.name, **export.asked}}
    typed |= {f"{form}-{name}": control for form, controls in forms.items() for name, control in controls.items() if name != "form"}
    keys, fields = json.dumps(list(typed)), list(typed.values())
    keep = f"(...values) => {{ window.layerscope.keep({keys}, values); }}"
    gr.on([field.change for field in fields], None, fields, None, js=keep, **quiet)
    demo.load(
        None, fields, fields, js=f"async (...values) => {{ {SCRIPTS_ARE_HERE} return window.layerscope.kept({keys}, values); }}", **quiet
    )
