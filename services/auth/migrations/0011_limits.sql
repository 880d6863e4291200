-- What operators set in place of a plan's rate limits, by the names that the code has for them; what is not there is the plan's.

ALTER TABLE tenants ADD COLUMN limits jsonb NOT NULL DEFAULT '{}';

GRANT UPDATE (limits) ON tenants TO auth_operator;
