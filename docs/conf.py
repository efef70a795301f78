"""How the pages are built: python -m sphinx -W --keep-going docs docs/_build/html

Nothing is fetched while building or while reading: no intersphinx, no fonts, no scripts from elsewhere, and
formulas are MathML, which browsers draw by themselves. Pages with code cells are run on every build, in an
empty folder; a cell that fails, and any warning, fails the build.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import bayesprune

project = "bayesprune"
author = copyright = "the authors of bayesprune"
release = version = bayesprune.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb", "mathml", "plain_text", "rooms"]
exclude_patterns = ["_build", "_extensions"]

# Furo: two small packages, readable on a telephone, light and dark, and no script or font from elsewhere.
html_theme = "furo"
html_title = f"bayesprune {release}"
html_static_path = ["_static"]
html_css_files = ["bayesprune.css"]
html_show_sourcelink = False
html_math_renderer = "mathml"
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

nb_execution_mode = "force"  # a stored result would outlive the code that it was computed with
nb_execution_in_temp = True
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_mime_priority_overrides = [("html", "text/html", None)]  # ArviZ's own tables are no use without its styles

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 88
nitpicky = False
