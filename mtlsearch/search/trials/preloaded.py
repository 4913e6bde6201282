"""What processes that train trials import before there is one, while the driver makes the study ready."""

from mtlsearch._imports import importing

with importing():
    import torch._dynamo  # noqa: F401 - an optimizer imports it when it is made, and it takes a second

    import mtlsearch.search.trials.trainable  # noqa: F401
