//! Sources → catalog → items → prompts → answers → facts. Pure code over values.
