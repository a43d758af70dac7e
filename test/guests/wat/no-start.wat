;; A module with nothing to start: no _start and no other function that could be an entry point.
(module
  (memory (export "memory") 1))
