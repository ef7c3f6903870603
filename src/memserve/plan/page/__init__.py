"""How an answer looks: sections as text, in colours, in a notebook."""
