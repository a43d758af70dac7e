;; A component that is neither a command nor a server, and exports nothing.
(component)
