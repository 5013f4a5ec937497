"""Evaluation of a run: samples, their metrics, the test likelihood, files and a picture.

``python -m symdiff_plugin.evaluate outputs/NAME`` evaluates, ``--runs 3`` three times and resumably; ``--data test``
evaluates QM9's own molecules. :mod:`.molecules`, :mod:`.bonds`, :mod:`.perception`, :mod:`.sdf` and :mod:`.picture`
work without EDM; :mod:`.run` and :mod:`.metrics` use EDM's own model, sampler and analysis.
"""
