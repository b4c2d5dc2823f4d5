"""What has been learnt from an upload: tables, encodings, stand-in models, and how long learning takes."""
