"""What is kept on disk between processes because it takes long to make."""

from fl_opt.cache.folder import cache_folder

__all__ = ["cache_folder"]
