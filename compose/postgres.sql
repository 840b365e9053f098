-- The three roles of docs/operator-guide.md, with passwords from the volume that the service `secrets` has filled.
\set owner `cat /run/trustfleet/owner`
\set api `cat /run/trustfleet/api`
\set system `cat /run/trustfleet/system`
CREATE ROLE trustfleet_owner LOGIN PASSWORD :'owner';
CREATE ROLE trustfleet_api LOGIN NOBYPASSRLS PASSWORD :'api';
CREATE ROLE trustfleet_system LOGIN NOBYPASSRLS PASSWORD :'system';
CREATE DATABASE trustfleet OWNER trustfleet_owner;
