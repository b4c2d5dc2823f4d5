"""The storage host: signed URLs, the manners of object stores, bytes on their way to disk."""
