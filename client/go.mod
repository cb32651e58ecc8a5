module payments/client

go 1.26.0
