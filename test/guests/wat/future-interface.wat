;; A component of a WASI to come: the error has to name the interface and its version.
(component
  (import "wasi:http/types@0.9.0" (instance
    (export "fields" (type (sub resource))))))
