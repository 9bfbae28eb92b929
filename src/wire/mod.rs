//! Client-visible JSON: the shapes of requests and responses, and nothing else.
