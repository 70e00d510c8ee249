"""``popctl doctor``: what is, or will be, wrong with a site.  Each check is a function."""
