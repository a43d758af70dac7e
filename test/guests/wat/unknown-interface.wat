;; A component that needs an interface of nobody we know.
(component
  (import "acme:store/query@1.2.3" (instance
    (export "ask" (func (param "text" string) (result string))))))
