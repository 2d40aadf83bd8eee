"""Configure Sphinx for the documentation. docs/build.py copies this file, with the pages, into a folder of its own."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from extension import linkcode_resolve as linkcode_resolve  # sphinx.ext.linkcode looks for it here

import minires

project = "minires"
author = "The minires authors"
copyright = "The minires authors"
version = release = minires.__version__

extensions = ["myst_nb", "sphinx.ext.linkcode", "extension"]
exclude_patterns = ["files"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "amsmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # an assignment may leave out a level of headings
nb_execution_mode = "off"  # the notebooks are committed with their outputs
nb_merge_streams = True
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # these would be loaded from the network

html_theme = "furo"
html_title = f"minires {release}"
html_static_path = ["theme.css"]
html_css_files = ["theme.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"top_of_page_buttons": []}
add_module_names = False
maximum_signature_line_length = 88
python_use_unqualified_type_names = True
pygments_style = "tango"
pygments_dark_style = "monokai"
