"""Evaluation of a run: samples, their metrics, the test likelihood, files and a picture.

``python -m symdiff_plugin.evaluate outputs/NAME`` evaluates; :mod:`.molecules`, :mod:`.bonds`, :mod:`.perception` and
:mod:`.picture` work without EDM, :mod:`.run` and :mod:`.metrics` use EDM's own model, sampler and analysis.
"""
