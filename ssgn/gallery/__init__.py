"""One's own images, searched by one's own sketches.

An index holds the *full* fused features of a folder's images: any model that was trained on the
same backbone can search it.
"""

from .index import Gallery
from .models import BOOK, book_model, model_of, trained_on
from .page import Found, Hit

__all__ = ["BOOK", "Found", "Gallery", "Hit", "book_model", "model_of", "trained_on"]
