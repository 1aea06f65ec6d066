"""The page: what a person sees and presses. Gradio draws it; a `Studio` does the work.

`studio` is the seam to whoever does the work: `local` does it in memory for whoever sits at the
machine, `remote` asks a service that keeps things. `server` puts pages and routes on one address,
`together` puts a service's API there too, and `offices` what is around its studio.
"""
