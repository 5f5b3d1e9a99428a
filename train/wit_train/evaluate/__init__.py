"""What a model can do: name pictures it was never told of, find texts by picture, be learned from.

``run`` composes the parts: ``sets`` opens test sets, ``features`` looks at their pictures,
``zero_shot``, ``retrieval`` and ``probe`` measure, ``statistics`` says how sure that is, ``page``
shows it. What comes out is in ``results``.
"""
