//! axum handlers, one file per endpoint. Knows neither the engine nor nn nor apalis.
