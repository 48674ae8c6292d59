"""A module as no zygote likes it: it starts a thread when it is imported."""

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
