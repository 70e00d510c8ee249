"""How Sphinx makes a site and manual pages of this directory."""

from popd import __version__

project = "popd"
author = "the authors of popd"
copyright = author  # noqa: A001 - Sphinx's name
version = release = __version__

extensions: list[str] = []
exclude_patterns = ["_build", "security-*.rst"]  # security.rst includes those
smartquotes = False  # what stands here is typed into terminals
nitpicky = True

html_theme = "alabaster"
html_title = f"popd {__version__}"
html_theme_options = {
    "description": "A POP3 server for people who run mail",
    "fixed_sidebar": True,
    "page_width": "64em",
}

man_pages = [
    ("man/popd", "popd", "POP3 server for Maildirs", author, "8"),
    ("man/popcheck", "popcheck", "check whether a POP3 server keeps to the RFCs", author, "1"),
    ("man/popctl", "popctl", "manage popd and its accounts", author, "1"),
    ("man/popd.toml", "popd.toml", "configuration of popd", author, "5"),
]
man_show_urls = True
