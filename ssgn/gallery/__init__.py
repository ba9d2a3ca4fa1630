"""Your own images, searched with your own sketches.

An index holds the *full* fused features of the images in a folder, so any model that was trained on
the same backbone can search it. The page *Draw and search* shows a search.
"""

from ..moved import moved
from .index import Gallery
from .models import ALL, BOOK, model_of, own_model, trained_on
from .page import Found, Hit

__all__ = ["ALL", "BOOK", "Found", "Gallery", "Hit", "model_of", "own_model", "trained_on"]

__getattr__ = moved(__name__)
