"""The text a person is asked to agree to where no other is shown; its hash is what is kept."""

CONSENT_TEXT = """\
I am of age, and these are photos of me.

I agree that my face is measured in these photos and kept encrypted, and that pictures of me are \
made from it when I ask for them. Every picture is marked as made by a machine.

I may take this back at any time; then nothing more is made, and my face is deleted for good. The \
photos themselves are not kept unless I tick that separately.
"""
CONSENT_LOCALE = "en"
