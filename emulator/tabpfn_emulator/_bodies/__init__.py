"""Request and response bodies, written once: validation and the OpenAPI document are made of them."""
