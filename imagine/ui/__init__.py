"""The page: what a person sees and presses. Gradio draws it; a `Studio` does the work.

`studio` is the seam to whoever does the work, `local` does it in this process for whoever sits at
the machine, `server` puts pages and routes on one address.
"""
