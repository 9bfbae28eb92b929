//! From a claimed item to its committed result, and from one stage of a job to the next.
