"""Searches without trainings, over learning curves that are known: another rule, sampler or budget on the same trials.

curves.py     what is known
orders.py     which configuration comes next
simulator.py  workers on a virtual clock
outcome.py    what a search found, spent and wrongly stopped
replay.py     all of that for a finished study: `python -m mtlsearch.study simulate`
"""
