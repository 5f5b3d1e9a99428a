"""``python -m wit_train RECIPE --out FOLDER`` is one process of a run; torchrun starts several."""

import sys

from wit_train.launched import main

if __name__ == "__main__":
    main(sys.argv[1:])
