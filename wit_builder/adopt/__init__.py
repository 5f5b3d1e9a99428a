"""Takes over what others downloaded: a folder that img2dataset wrote becomes a data set."""
