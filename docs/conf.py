"""The site that `scripts/docs` makes of the pages in this folder (Sphinx, MyST, furo)."""

project = "iii"
author = "iii maintainers"
project_copyright = author
extensions = ["myst_parser"]
exclude_patterns = ["images/README.md"]
root_doc = "index"
# Links to headings, as GitHub makes their names.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]
# A page that is part of no list would be found by nobody; all warnings are errors.
nitpicky = True
# Code that shows a notation of ours, or what a program prints, has no colors.
highlight_language = "none"
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = "iii"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_use_index = False
