//! Facts → files: deterministic to the byte, escaped. Pure code over values.
