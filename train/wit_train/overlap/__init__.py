"""How far a test set was trained on: near-duplicates found, confirmed, accounted for and listed.

What section 5 and appendix C of the CLIP paper do: ``variants`` and ``nearest`` find candidates by
perceptual hashes, which ``sources`` has of the training pictures; ``confirm`` compares each pair by
an embedding, with a threshold of ``threshold``; ``account`` splits the accuracy; ``lists`` and
``page`` write what people and the next build need. ``analysis`` is the whole.
"""
