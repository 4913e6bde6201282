"""The strategies, one file each; `mtlsearch.gradients.registry` finds them by name."""
