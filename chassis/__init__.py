"""The microservice chassis: what every Pulsegate service needs and none owns.

Nothing enters here until two services need it, and nothing here knows a service.
"""
