"""The four stages of the paper's recipe (arXiv 2409.13346, section 3.3), run one after another."""
