//! What an extraction yields: concepts, relationships and attributes, each with the identifiers it rests on.
