//! Typed HTTP client of our own API.
